// A step that opens key vaults, and one that signs with managed files.
def call(config, Closure body) {
  withAzureKeyvault(
    azureKeyVaultSecrets: config.entries,
    keyVaultURLOverride: "https://${config.name}.vault.azure.net/",
    applicationIDOverride: env.VAULT_CLIENT_ID,
    applicationSecretOverride: env.VAULT_CLIENT_SECRET
  ) {
    body.call()
  }
  azureKeyVault(credentialID: 'vault-reader', keyVaultURL: 'https://shop.vault.azure.net', secrets: [
    [secretType: 'Secret', name: 'npm-token', envVariable: 'NPM_TOKEN']
  ]) {
    sh 'npm publish'
  }
  stage('Sign') {
    def pass = config.pass ?: 'signer-pass'
    configFileProvider([configFile(fileId: pass, variable: 'SIGNER_PASSWORD'), configFile(fileId: 'notes', variable: 'NOTES')]) {
      sh './sign'
    }
  }
  def shared = [
    [$class: 'AzureKeyVaultSecret', secretType: 'Secret', name: 'hub-user', envVariable: 'HUB_USERNAME'],
    [$class: 'AzureKeyVaultSecret', secretType: 'Secret', name: 'hub-token', envVariable: 'HUB_PASSWORD'],
  ]
  withAzureKeyvault(shared) { sh 'echo "$HUB_PASSWORD" | docker login -u "$HUB_USERNAME" --password-stdin' }
  def action = 'plan'
  final String runStage = "Run: ${action}"
  stage(runStage) {
    withCredentials([string(credentialsId: 'planner', variable: 'PLANNER_TOKEN')]) { sh './plan' }
  }
  def login = config.login ?: ''
  stage('Cloud') {
    withCredentials([file(credentialsId: login, variable: 'CLOUD_KEY_FILE')]) {
      sh 'gcloud auth activate-service-account --key-file $CLOUD_KEY_FILE'
    }
  }
}
