// A step of a library: ids that a switch and a choice give, and values that another step brings.
def call(Map config = [:]) {
    String mode = config.mode ?: 'slow'
    node(mode == 'fast' ? 'big-machine' : 'small-machine') {
        withStoreCredentials(config) {
            sh "curl -X PUT -H 'Authorization: Bearer ${STORE_API_TOKEN}' -T out.tgz https://store.example.com/v1/out"
        }
        withCredentials([usernamePassword(credentialsId: keyOf(config.site).id, usernameVariable: 'U', passwordVariable: 'P')]) {
            sh '"$ENGINE" login --username "$U" --password "$P" registry.example.com'
        }
        withCredentials([string(credentialsId: config.statusId, variable: 'STATUS_TOKEN')]) {
            httpRequest url: 'https://status.example.com/api', customHeaders: [[name: 'Authorization', value: 'Bearer ' + STATUS_TOKEN]]
        }
        configFileProvider([configFile(fileId: config.settings, variable: 'MAVEN_SETTINGS'), configFile(fileId: 'edge', targetLocation: 'kube-config.yaml')]) {
            sh 'mvn -s $MAVEN_SETTINGS deploy'
        }
        if (env.TAG_NAME || env.BRANCH_IS_PRIMARY) {
            stage("Send to ${mode}") {
                withCredentials([sshUserPrivateKey(credentialsId: mode == 'fast' ? 'fast-key' : 'slow-key', keyFileVariable: 'KEY'), string(credentialsId: 'ring-pass', variable: 'RING_PASS')]) {
                    sh """
                        ssh -i ${KEY} deploy@files.example.com << 'DONE'
                        gpg --detach-sign --passphrase ${RING_PASS} out.tgz
DONE
                    """
                }
            }
        }
        if (!env.TAG_NAME) {
            stage('Try') {
                withCredentials([string(credentialsId: 'try-token', variable: 'TRY_TOKEN')]) { sh 'bash -c "twine upload -p $TRY_TOKEN dist/*"' }
            }
        }
    }
}

Map keyOf(String site) {
    switch (site) {
        case 'north':
            return [ok: true, id: 'n', credentialId: 'north-dockerhub']
        case ~/south-.*/: return [ok: true, credentialId: 'south-robot']
        default:
            return [ok: false]
    }
}
